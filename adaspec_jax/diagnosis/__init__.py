"""Why acceptance is low: what is measured of a pair, and a checklist that judges it."""
