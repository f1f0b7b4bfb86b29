"""The hospital's network: objects come in, are kept, read and sent on. Comes in: DICOM from peers. Goes out: objects, masks and findings to peers."""
