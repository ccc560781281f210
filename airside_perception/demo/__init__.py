"""`make demo`: the whole graph, launched, on a generated apron drive."""
