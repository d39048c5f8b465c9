"""NTDH on SemanticKITTI: LiDAR taught by a camera."""
