"""Networks: Flax NNX layers. `systems` is the only caller."""
