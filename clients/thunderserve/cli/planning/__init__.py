"""Commands that plan on paper: no GPU and no fleet is needed."""
