// Checks a tile log with golang.org/x/mod, which has nothing in common with our code.
module writ.test/tlog-checker

go 1.24.0

require golang.org/x/mod v0.29.0
