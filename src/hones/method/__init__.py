"""The paper: heads (step 1), neurons and their drops (step 2), masking (step 3), steering (step 4), analysis."""
