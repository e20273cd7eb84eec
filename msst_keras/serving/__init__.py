"""The SavedModel: what predict, the clients and TF Serving all use."""
