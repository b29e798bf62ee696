; Takes a lock, counts itself, and forgets to unlock.
        mov r1, delta
        call lock
        jslt r0, 0, out
        mov r1, delta
        mov r2, 0
        call lookup
        add r0, 1
        mov r3, r0
        mov r1, delta
        mov r2, 0
        call update
out:    exit
