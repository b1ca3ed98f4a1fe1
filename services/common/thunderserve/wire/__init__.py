"""The only translators between our types and protobuf: `x_to_proto`, `x_from_proto`."""
