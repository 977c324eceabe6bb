"""What every family uses: launches, values on a tile, activations, the sum of partial results."""
