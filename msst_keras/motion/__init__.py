"""From frames to the motion prior (section 3.1): optical flow, its superpixels, their scores."""
