"""One absl program per job; `msst JOB` runs them."""
