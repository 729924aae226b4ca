"""The pages of exhibits, a module each under the exhibit's name; the generic page shows an exhibit that has none."""
