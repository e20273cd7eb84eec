"""Evaluation of saliency maps: metrics, named protocols to compute them under, and result files."""
