// Package when compiles and evaluates the condition of a route's filter: an expression of github.com/expr-lang/expr
// (https://expr-lang.org/docs/language-definition) over one message, that is true or false.
//
// The expression sees
//
//	subject  string
//	header   map of string to string: the first value of each header, letter case kept (NATS ADR-4); "" if there is none
//	json     the payload, parsed; numbers are integers where they fit into 64 bits, else floats
//	size     int, the length of the payload
//
// and all functions and operators of the language. The payload is parsed when evaluation comes to json, once a message: in
// `subject startsWith "orders." && json.total > 100` not at all for other subjects.
//
// What is not there compares as nil: `json.total == nil`. Anything more is an error of the evaluation: `json.total > 100` without
// a total, `json.a.b` without an a (write `json.a?.b`), json where the payload is none, and a result that is neither true nor
// false (nil, a field that is not there, counts as false).
package when

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// A Condition is a compiled expression. It is safe for concurrent use.
type Condition struct {
	program *vm.Program
	header  bool      // it looks at headers
	idle    sync.Pool // of *evaluation
}

// An evaluation is what one run of a program needs. It is used again and again, so that a run costs few allocations.
type evaluation struct {
	vm  vm.VM
	env environment
}

// environment is what the expression sees.
type environment struct {
	Subject string            `expr:"subject"`
	Header  map[string]string `expr:"header"`
	JSON    any               `expr:"json"` // here for its name only: see lazyJSON
	Size    int               `expr:"size"`

	payload *Document
}

// payloadFunc is what stands for json in a compiled program. No name that a user would choose.
const payloadFunc = "__payload"

// A SyntaxError says what is wrong with the text of a condition, and where.
type SyntaxError struct {
	Line, Col int // from 1; 0 if it is the condition as a whole
	Msg       string
}

func (e *SyntaxError) Error() string {
	switch {
	case e.Line == 0:
		return e.Msg
	case e.Line == 1:
		return fmt.Sprintf("at character %d: %s", e.Col, e.Msg)
	}
	return fmt.Sprintf("at line %d, character %d: %s", e.Line, e.Col, e.Msg)
}

// Compile checks the expression, its types too, and compiles it. The error is a *SyntaxError.
func Compile(src string) (*Condition, error) {
	used, err := inspect(src)
	if err != nil {
		return nil, syntaxError(err)
	}
	program, err := expr.Compile(src, expr.Env(environment{}), expr.AsBool(), expr.Patch(lazyJSON{}),
		expr.Function(payloadFunc, payload))
	if err != nil {
		return nil, syntaxError(err)
	}
	c := &Condition{program: program, header: used["header"]}
	c.idle.New = func() any { return &evaluation{env: environment{Header: map[string]string{}}} }
	return c, nil
}

// Holds evaluates the condition for a message, whose payload doc is.
func (c *Condition) Holds(subject string, header map[string][]string, doc *Document) (bool, error) {
	e := c.idle.Get().(*evaluation)
	defer func() {
		clear(e.env.Header)
		e.env.Subject, e.env.payload = "", nil
		c.idle.Put(e)
	}()
	e.env.Subject, e.env.Size, e.env.payload = subject, len(doc.Data), doc
	if c.header {
		for key, values := range header {
			if len(values) > 0 {
				e.env.Header[key] = values[0]
			}
		}
	}
	result, err := e.vm.Run(c.program, &e.env)
	if err != nil {
		return false, evaluationError(err)
	}
	holds, ok := result.(bool)
	if !ok {
		return false, fmt.Errorf("the condition is neither true nor false, but of type %T", result)
	}
	return holds, nil
}

// lazyJSON replaces json by a call that parses the payload when evaluation comes to it.
type lazyJSON struct{}

// Visit implements ast.Visitor.
func (lazyJSON) Visit(node *ast.Node) {
	if id, ok := (*node).(*ast.IdentifierNode); ok && id.Value == "json" {
		ast.Patch(node, &ast.CallNode{
			Callee:    &ast.IdentifierNode{Value: payloadFunc},
			Arguments: []ast.Node{&ast.IdentifierNode{Value: "$env"}},
		})
	}
}

func payload(args ...any) (any, error) {
	if len(args) == 1 {
		if env, ok := args[0].(*environment); ok {
			return env.payload.Value()
		}
	}
	return nil, errors.New("the arguments are wrong")
}

// inspect returns the names that the expression uses, and refuses those that would see past lazyJSON.
func inspect(src string) (map[string]bool, error) {
	tree, err := parser.Parse(src)
	if err != nil {
		return nil, err
	}
	used := names{}
	ast.Walk(&tree.Node, used)
	for _, name := range []string{"$env", payloadFunc} {
		if used[name] {
			return nil, fmt.Errorf("unknown name %s", name)
		}
	}
	return used, nil
}

type names map[string]bool

// Visit implements ast.Visitor.
func (n names) Visit(node *ast.Node) {
	if id, ok := (*node).(*ast.IdentifierNode); ok {
		n[id.Value] = true
	}
}

func syntaxError(err error) error {
	if at, ok := errors.AsType[*file.Error](err); ok {
		return &SyntaxError{Line: at.Line, Col: at.Column + 1, Msg: at.Message}
	}
	return &SyntaxError{Msg: err.Error()}
}

// evaluationError shortens the library's error to one line: its own shows the expression and underlines a piece of it.
func evaluationError(err error) error {
	at, ok := errors.AsType[*file.Error](err)
	if !ok {
		return err
	}
	const most = 200 // values of the message may be in there
	msg := at.Message
	if len(msg) > most {
		msg = strings.ToValidUTF8(msg[:most], "") + "…"
	}
	return fmt.Errorf("at character %d of the condition: %s", at.Column+1, msg)
}
