"""From frames to the motion prior (section 3.1): optical flow, superpixels of the flow map, scores of the
superpixels."""
