"""Generated videos, and still images set in motion, with exact masks and exact flow."""
