"""What the production stack costs, layer by layer, beside uvicorn bare and beside the usual recipe."""
