"""qcow2 streams: written with a length known beforehand (`writer`), read forward only (`reader`)."""
