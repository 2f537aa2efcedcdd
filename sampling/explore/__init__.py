"""The page of `generate.py explore`: `view` (what is shown), `explorer` (its images), `page` (its widgets)."""
