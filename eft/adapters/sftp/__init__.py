"""SFTP endpoints: `pool` opens them, `store` speaks ports.Store, `session` SFTP, `wire` its packets, `connect` SSH."""
