"""Saliency of a camera or a network stream as it comes, and the page that shows it."""
