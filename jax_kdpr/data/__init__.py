"""Sources of scene images (`scenes`, `fashion_mnist`, `image_files`), and batches of images."""
