"""What the figures are held against: what servers, libraries and another collector do, measured in the same run."""
