"""Coarse labels (section 3.3): several methods' maps fused and thresholded, and a page to erase what is wrong."""
