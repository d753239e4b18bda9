"""The history of requests and of operators' changes: records, sums by day, export."""
