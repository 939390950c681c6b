"""The demo: ToyDrive, a short S3PT run, and a report to look at."""
