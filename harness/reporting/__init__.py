"""What is shown of records: tables beside the paper's numbers, plots, and one HTML page without a server."""
