"""SGLang as the engine: in this process, with its scheduler in processes of its own."""
