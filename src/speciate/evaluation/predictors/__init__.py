"""Who answers in an evaluation: a file a kind of contestant, from the column of an older system to a public model."""
