"""The networks of section 3.2, written with keras and keras.ops alone so that any Keras backend runs them."""
