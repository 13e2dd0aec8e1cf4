"""What tests of several folders are made of: small bundles, nets, programs and shells."""
