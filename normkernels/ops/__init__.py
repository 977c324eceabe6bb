"""One file per normaliser: its schemas, buffers, autograd and public function."""
