"""One model under thousands of edits: engines, shards, resume, proof."""
