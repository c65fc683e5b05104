// The register with one reader that promises nothing; everything is in register.pml.
// Mutants that must be caught: READ_ONE
#define READER
#include "register.pml"
