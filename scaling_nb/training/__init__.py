"""The training wing: what is trained, and one run's loop. torch lives here."""
