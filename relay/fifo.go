package relay

// fifo is a first-in-first-out queue of messages: a ring that grows, and gives its memory back when it is empty again.
type fifo struct {
	ring []*Message // length is zero or a power of two
	head int
	n    int
}

// fifoKeep is the largest ring that an empty fifo keeps.
const fifoKeep = 1024

func (q *fifo) len() int { return q.n }

func (q *fifo) push(m *Message) {
	if q.n == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = m
	q.n++
}

func (q *fifo) grow() {
	bigger := make([]*Message, max(64, 2*len(q.ring)))
	for i := range q.n {
		bigger[i] = q.at(i)
	}
	q.ring, q.head = bigger, 0
}

// at returns the i-th message from the front.
func (q *fifo) at(i int) *Message { return q.ring[(q.head+i)&(len(q.ring)-1)] }

func (q *fifo) pop() *Message {
	m := q.ring[q.head]
	q.ring[q.head] = nil
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	if q.n == 0 && len(q.ring) > fifoKeep {
		q.ring, q.head = nil, 0
	}
	return m
}
