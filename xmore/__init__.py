"""Pure code of X-MoRe: the method, the artifacts and the encoders. Knows nothing of Prefect."""
