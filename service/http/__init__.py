"""Everything that knows HTTP: the app, its server, its routes, who may ask and how errors are answered."""
