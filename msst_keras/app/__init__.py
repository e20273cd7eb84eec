"""A local page that shows what the product does: it takes a video and gives its maps and an overlay."""
