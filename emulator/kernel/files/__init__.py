"""Open file descriptions: one file per kind of object behind a descriptor."""
