"""A local page that shows what the product does: a video goes in, its maps and an overlay come out."""
