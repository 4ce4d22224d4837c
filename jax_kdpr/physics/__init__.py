"""Pure functions of the optics: one sample in, one sample out. Callers batch them with `jax.vmap`.

| symbol | meaning | here |
| --- | --- | --- |
| x | scene, a complex field | `field` [h w] |
| phi_l | phase of mask l, radians | `phases` [k h w] |
| A_l | mask: multiplies x by e^{-j phi_l} | inside `cdp_forward` |
| F | orthonormal 2-D DFT, zero frequency at [0, 0], optionally of the zero-padded field | ditto |
| y_l | abs(F A_l x)^2, eq. 1 | `intensity` [k sh sw] |
| Gamma(y) | sum_l A_l^H F^H diag(w_l) F A_l | inside `filtered_spectral_init` |
| G_psi | learned low-pass filter | `kernel` [n n] |
| z | spectral estimate of x, algorithm 1 | `estimate` [h w] |

Equation numbers are those of arXiv 2505.18352.
"""
