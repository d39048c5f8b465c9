"""NTDH on NYU Depth V2: voxels of a room from depth, taught by colours."""
