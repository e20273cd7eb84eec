"""Files of images and flow, and the folders in which datasets come."""
