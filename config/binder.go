package config

import (
	"fmt"
	"maps"
	"slices"
)

// A binder checks a decoded file against the schema, fills the Config, and collects every problem on its way.
type binder struct {
	file, src   string
	env         Env
	connections []string // names of the [nats.NAME] tables
	problems    Errors
}

// A table is the schema of one table of the file. Building it sets the defaults, binding it the values.
type table struct {
	keys []key

	// A table with a type has keys that belong to one type only. plural names such tables in errors.
	plural string

	// finish, if any, runs after the keys have been read: for rules between keys. Some keys may have had problems.
	finish func(b *binder, t value)
}

// A key is the schema of one key.
type key struct {
	name    string
	only    string                   // the type of table that it belongs to; "" is all
	missing string                   // the problem if it is not there; "" is none
	read    func(b *binder, v value) // nil: the key is planned, but not in this version
	inside  func() table             // the table below it, if it has one whose keys are known by name
	each    func(name string) table  // the tables below it, if their names are the user's
}

// opt is a key with a default.
func opt[T any](name string, to *T, def T, parse parser[T]) key {
	*to = def
	return key{name: name, read: into(to, parse)}
}

// req is a key that has to be there.
func req[T any](name string, to *T, parse parser[T]) key {
	return key{name: name, read: into(to, parse), missing: "required key is missing"}
}

func into[T any](to *T, parse parser[T]) func(*binder, value) {
	return func(b *binder, v value) {
		if x, ok := parse(b, v); ok {
			*to = x
		}
	}
}

// or replaces what is said when the key is missing.
func (k key) or(missing string) key {
	k.missing = missing
	return k
}

// later are keys that come with a later version. They are refused, but not called unknown.
func later(names ...string) []key {
	keys := make([]key, len(names))
	for i, name := range names {
		keys[i] = key{name: name}
	}
	return keys
}

// only makes keys belong to one type of table.
func only(kind string, keys ...key) []key {
	for i := range keys {
		keys[i].only = kind
	}
	return keys
}

// sub is a table inside a table. Without it in the file its defaults hold.
func sub(name string, t table) key {
	return key{
		name:   name,
		read:   func(b *binder, v value) { b.table(v, t) },
		inside: func() table { return t },
	}
}

// reqSub is a table inside a table that has to be there.
func reqSub(name string, t table) key {
	k := sub(name, t)
	k.missing = "required table is missing"
	return k
}

// ptr is a table inside a table whose absence means something.
func ptr[T any](name string, to **T, build func(*T) table) key {
	return key{
		name:   name,
		read:   func(b *binder, v value) { *to = new(T); b.table(v, build(*to)) },
		inside: func() table { return build(new(T)) },
	}
}

// named is a table of tables whose names the user chooses.
func named(name string, valid func(name string) (problem string), build func(name string) table) key {
	return key{
		name: name,
		read: func(b *binder, v value) {
			for _, name := range b.names(v) {
				below, _ := v.get(name)
				if problem := valid(name); problem != "" {
					b.problem(below, "%s", problem)
				}
				b.table(below, build(name))
			}
		},
		each: build,
	}
}

// names returns the sorted keys of a table, and complains if v is none.
func (b *binder) names(v value) []string {
	if v.table() == nil {
		b.problem(v, "must be a table, not %s", v.kind())
	}
	return slices.Sorted(maps.Keys(v.table()))
}

// table binds one table of the file.
func (b *binder) table(v value, t table) {
	names := b.names(v)
	if v.table() == nil {
		return
	}
	kind := b.kindOf(v, t)
	for _, name := range names {
		at, _ := v.get(name)
		k, known := t.find(name, kind)
		switch {
		case !known:
			b.problem(at, "unknown key%s", t.hint(name, kind))
		case k.only != "" && kind != "" && k.only != kind:
			b.problem(at, "belongs to %s of type %s, this one is %s", t.plural, k.only, kind)
		case k.read == nil:
			b.problem(at, "not supported by this version")
		}
	}
	for _, k := range t.keys {
		at, present := v.get(k.name)
		switch {
		case k.read == nil || k.only != "" && k.only != kind:
		case present:
			k.read(b, at)
		case k.missing != "":
			b.problem(at, "%s", k.missing)
		}
	}
	if t.finish != nil {
		t.finish(b, v)
	}
}

// kindOf returns the type of a table that has types, if it is given and right.
func (b *binder) kindOf(v value, t table) string {
	at, ok := v.get("type")
	if !ok || t.plural == "" {
		return ""
	}
	quiet := binder{env: b.env} // the key "type" itself reports what is wrong with it
	kind, _ := text(&quiet, at)
	if !slices.ContainsFunc(t.keys, func(k key) bool { return k.only == kind }) {
		return ""
	}
	return kind
}

// find returns the key of that name; where several types have it, the one of this type.
func (t table) find(name, kind string) (found key, ok bool) {
	for _, k := range t.keys {
		if k.name == name && (!ok || k.only == kind) {
			found, ok = k, true
		}
	}
	return found, ok
}

// hint guesses what an unknown key was meant to be.
func (t table) hint(name, kind string) string {
	for _, k := range t.keys {
		if k.inside == nil {
			continue
		}
		if _, ok := k.inside().find(name, ""); ok {
			return `, did you mean "` + k.name + "." + name + `"?`
		}
	}
	return didYouMean(name, t.supported(kind))
}

// supported returns the names of the keys that a table of this type may have.
func (t table) supported(kind string) []string {
	var names []string
	for _, k := range t.keys {
		if k.read != nil && (k.only == "" || kind == "" || k.only == kind) {
			names = append(names, k.name)
		}
	}
	return names
}

// problem notes what is wrong with v. Callers quote values by value.quote only, and those of secrets never.
func (b *binder) problem(v value, format string, args ...any) {
	line, col := position(b.src, v.at.off)
	b.problems = append(b.problems, Problem{b.file, line, col, v.key, fmt.Sprintf(format, args...)})
}
