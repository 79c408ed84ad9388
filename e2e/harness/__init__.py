"""What the end-to-end scenarios stand on: peers, processes, transcripts, and the run itself."""
