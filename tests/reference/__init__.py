"""The methods once more, slow and plain, from the equations: nothing here imports s3pt_mm."""
