"""Online norm: a recurrence over the samples between two sweeps over the channels."""
