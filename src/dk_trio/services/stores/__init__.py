"""What is kept: records, costs, files, setups and profiles, by whoever keeps them: a module's server or a provider."""
