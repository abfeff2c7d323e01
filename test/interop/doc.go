// Package interop shows that others understand what natsrelay sends: its requests are read by the official libraries of the
// standards that they follow. It is a module of its own, so that natsrelay does not depend on them.
package interop
