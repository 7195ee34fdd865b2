"""The run loop of a stage over one partition: placeholder, being written by the lead."""
