;;; dg-lsp-ghost.el --- Ghost text at point  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; Text that is not in the buffer yet, shown at point, and taken into it whole
;; or in parts.  Nothing here knows where the text comes from.
;;
;; A ghost belongs to one window, one buffer, one state of its text and one
;; place of point: its tick.  `dg-lsp-ghost-refresh' compares the tick after
;; each command.  Where the text has changed to what the ghost says, the ghost
;; shrinks or grows with it; after anything else it is gone.

;;; Code:

(require 'cl-lib)
(require 'subr-x)

(defgroup dg-lsp nil
  "Completions from a text-diffusion model."
  :group 'convenience
  :prefix "dg-lsp-")

(defface dg-lsp-ghost '((t :inherit shadow))
  "Text that is offered.")

(defface dg-lsp-settled '((t :inherit dg-lsp-ghost))
  "The part of a draft that the engine has accepted.")

(defface dg-lsp-unsettled '((t :inherit dg-lsp-ghost :slant italic :weight light))
  "The part of a draft that may still change.")

(defvar-local dg-lsp-ghost-acceptable nil
  "Non-nil in a buffer that shows ghost text which can be accepted.")

(cl-defstruct (dg-lsp-ghost--item (:constructor dg-lsp-ghost--make-item))
  "TEXT, offered in the place of what is between the markers START and END.
AFTER is the part of that behind point.  OUTSIDE is the length of the
text around them, which betrays an edit there."
  start end text after outside)

(cl-defstruct (dg-lsp-ghost--shown (:constructor dg-lsp-ghost--make-shown))
  "What is shown by OVERLAY as of TICK: the first of ITEMS, or a draft if none."
  items overlay tick)

(defvar dg-lsp-ghost--shown nil
  "What is shown, or nil.  There is one point, so there is one ghost.")

;;;; Freshness

(defun dg-lsp-ghost-tick ()
  "Return a list of the present window, buffer, point and state of the text.
While a minibuffer is in use, the window from which it was called counts."
  (let ((window (or (minibuffer-selected-window) (selected-window))))
    (with-current-buffer (window-buffer window)
      (list window (current-buffer) (window-point window)
            (buffer-chars-modified-tick)))))

(defun dg-lsp-ghost-fresh-p (tick)
  "Return non-nil if window, text and point are still those of TICK."
  (equal tick (dg-lsp-ghost-tick)))

;;;; Items

(defun dg-lsp-ghost-item (start end text)
  "Return an item with TEXT in the place of START to END."
  (dg-lsp-ghost--make-item
   :start (copy-marker start) :end (copy-marker end t) :text text
   :after (save-restriction
            (widen)
            (buffer-substring-no-properties (point) (max (point) end)))
   :outside (- (buffer-size) (- end start))))

(defun dg-lsp-ghost--rest (item)
  "Return what ITEM has beyond the text before point, or nil.
It is nil if the text before point is not the beginning of ITEM, if
ITEM would change nothing, and if other text has changed."
  (let ((start (marker-position (dg-lsp-ghost--item-start item)))
        (end (marker-position (dg-lsp-ghost--item-end item)))
        (text (dg-lsp-ghost--item-text item)))
    (when (and (<= (point-min) start (point) end (point-max))
               (= (- (buffer-size) (- end start))
                  (dg-lsp-ghost--item-outside item))
               (string-prefix-p
                (buffer-substring-no-properties start (point)) text)
               (not (equal (buffer-substring-no-properties start end) text))
               (dg-lsp-ghost--behind-p item (substring text (- (point) start))))
      (substring text (- (point) start)))))

(defun dg-lsp-ghost--behind-p (item rest)
  "Return non-nil if behind point is what ITEM replaced, and nothing strange.
What `electric-pair-mode' inserts there is in REST too."
  (let ((new (dg-lsp-ghost--without (dg-lsp-ghost--item-after item)
                                    (dg-lsp-ghost--replaced item))))
    (and new
         (string-search new rest)
         (not (string-search "\n" new)))))

(defun dg-lsp-ghost--replaced (item)
  "Return the text behind point in whose place ITEM is offered."
  (buffer-substring-no-properties (point) (dg-lsp-ghost--item-end item)))

(defun dg-lsp-ghost--without (replaced text)
  "Return TEXT without REPLACED at its end, or nil if it does not end so."
  (and (string-suffix-p replaced text)
       (substring text 0 (- (length text) (length replaced)))))

(defun dg-lsp-ghost--insert (item rest count)
  "Insert the first COUNT characters of REST, which ITEM has beyond point.
With the last of them, what was in the place of ITEM is gone."
  (let* ((replaced (dg-lsp-ghost--replaced item))
         (new (dg-lsp-ghost--without replaced rest)))
    (cond ((< count (length rest))
           (insert (substring rest 0 count)))
          (new
           (insert new)
           (forward-char (length replaced)))
          (t
           (delete-char (length replaced))
           (insert rest)))))

;;;; Display

(defun dg-lsp-ghost--draw (overlay text end)
  "Make OVERLAY show TEXT at point, in the place of all before END.
What stays the same at the end of both is left as it is."
  (let ((new (dg-lsp-ghost--without
              (buffer-substring-no-properties (point) end) text)))
    (move-overlay overlay (point) (if new (point) end) (current-buffer))
    (unless (member new '(nil ""))
      ;; The cursor stays before the ghost, and not behind it.
      (put-text-property 0 1 'cursor t new))
    (overlay-put overlay 'after-string new)
    (overlay-put overlay 'display (unless new text))))

(defun dg-lsp-ghost--overlay ()
  "Return an overlay at point that is seen in the selected window alone."
  (let ((overlay (make-overlay (point) (point))))
    (overlay-put overlay 'window (selected-window))
    ;; No face has this name: an overlay would take its number for a face.
    (overlay-put overlay 'category 'dg-lsp-ghost-overlay)
    overlay))

(defun dg-lsp-ghost--show (items text end)
  "Show TEXT at point, up to END; ITEMS are what it can be accepted as."
  (let ((overlay (if dg-lsp-ghost--shown
                     (dg-lsp-ghost--shown-overlay dg-lsp-ghost--shown)
                   (dg-lsp-ghost--overlay))))
    (setq dg-lsp-ghost--shown
          (dg-lsp-ghost--make-shown :items items :overlay overlay
                                    :tick (dg-lsp-ghost-tick))
          dg-lsp-ghost-acceptable (and items t))
    (dg-lsp-ghost--draw overlay text end)))

(defun dg-lsp-ghost-hide ()
  "Show no ghost text any more."
  (when-let* ((shown dg-lsp-ghost--shown))
    (setq dg-lsp-ghost--shown nil)
    (when-let* ((buffer (overlay-buffer (dg-lsp-ghost--shown-overlay shown))))
      (with-current-buffer buffer
        (setq dg-lsp-ghost-acceptable nil)))
    (delete-overlay (dg-lsp-ghost--shown-overlay shown))))

(defun dg-lsp-ghost-offer (items &optional turn)
  "Show the first of ITEMS with anything beyond point.
With TURN, show the one so much further than what is shown, if that is
among them.  The others can be cycled to.  Return non-nil if there is one."
  (let* ((sensible (cl-remove-if-not #'dg-lsp-ghost--rest items))
         (place (and turn (cl-position (dg-lsp-ghost-rest) sensible
                                       :key #'dg-lsp-ghost--rest :test #'equal)))
         (first (if place (mod (+ place turn) (length sensible)) 0)))
    (unless (and sensible (dg-lsp-ghost--here-p))
      (dg-lsp-ghost-hide))
    (when sensible
      (dg-lsp-ghost--offer-first (append (nthcdr first sensible)
                                         (cl-subseq sensible 0 first)))
      t)))

(defun dg-lsp-ghost--offer-first (items)
  "Show the first of ITEMS, which has something to say."
  (dg-lsp-ghost--show
   items
   (propertize (dg-lsp-ghost--rest (car items)) 'face 'dg-lsp-ghost)
   (marker-position (dg-lsp-ghost--item-end (car items)))))

(defun dg-lsp-ghost-sketch (pieces)
  "Show a draft at point, unless there is ghost text to accept.
PIECES are conses of a text and whether it is settled."
  (unless (dg-lsp-ghost-rest)
    (dg-lsp-ghost-hide)
    (let ((text (mapconcat
                 (pcase-lambda (`(,text . ,settled))
                   (propertize text 'face (if settled 'dg-lsp-settled
                                            'dg-lsp-unsettled)))
                 pieces "")))
      (unless (string-empty-p text)
        (dg-lsp-ghost--show nil text (point))))))

(defun dg-lsp-ghost--here-p ()
  "Return non-nil if what is shown is shown in this window and buffer."
  (when-let* ((shown dg-lsp-ghost--shown))
    (pcase (dg-lsp-ghost--shown-tick shown)
      (`(,window ,buffer . ,_)
       (and (eq window (selected-window)) (eq buffer (current-buffer)))))))

(defun dg-lsp-ghost--text-changed-p ()
  "Return non-nil if the text is not the one to which the ghost belongs."
  (pcase (dg-lsp-ghost--shown-tick dg-lsp-ghost--shown)
    (`(,_window ,_buffer ,_point ,tick)
     (/= tick (buffer-chars-modified-tick)))))

(defun dg-lsp-ghost-refresh ()
  "Let the ghost follow what a command did, or hide it.
Return non-nil if one is shown afterwards."
  (when-let* ((shown dg-lsp-ghost--shown))
    (unless (dg-lsp-ghost-fresh-p (dg-lsp-ghost--shown-tick shown))
      (let ((items (dg-lsp-ghost--shown-items shown)))
        (if (and items
                 (dg-lsp-ghost--here-p)
                 (dg-lsp-ghost--text-changed-p)
                 (dg-lsp-ghost--rest (car items)))
            (dg-lsp-ghost--offer-first items)
          (dg-lsp-ghost-hide))))
    dg-lsp-ghost--shown))

;;;; What a user does with it

(defun dg-lsp-ghost--first ()
  "Return the item that is shown, if it is still right."
  (when-let* ((shown dg-lsp-ghost--shown))
    (and (dg-lsp-ghost-fresh-p (dg-lsp-ghost--shown-tick shown))
         (car (dg-lsp-ghost--shown-items shown)))))

(defun dg-lsp-ghost-rest ()
  "Return the ghost text that can be accepted at point, or nil."
  (when-let* ((item (dg-lsp-ghost--first)))
    (dg-lsp-ghost--rest item)))

(defun dg-lsp-ghost-ends-line-p ()
  "Return non-nil if nothing stands on this line behind the ghost text."
  (when-let* ((item (dg-lsp-ghost--first)))
    (= (dg-lsp-ghost--item-end item) (line-end-position))))

(defun dg-lsp-ghost-take (count)
  "Accept the first COUNT characters of the ghost text, in one undo step.
Return non-nil if there is more of it, which stays shown."
  (let* ((item (dg-lsp-ghost--first))
         (rest (dg-lsp-ghost--rest item)))
    (undo-boundary)
    (dg-lsp-ghost--insert item rest count)
    (undo-boundary)
    (dg-lsp-ghost-refresh)))

(defun dg-lsp-ghost-cycle (count)
  "Show the item that is COUNT further; return nil if there are not several."
  (when-let* ((items (and (dg-lsp-ghost--first)
                          (dg-lsp-ghost--shown-items dg-lsp-ghost--shown)))
              ((cdr items)))
    (dg-lsp-ghost-offer items count)))

(defun dg-lsp-ghost-word (text)
  "Return the length of the first word of TEXT with the blanks before it.
A word is a run of letters, digits and underscores, or one of other
characters that are not blank."
  (string-match "\\`[ \t\r\n\f]*\\(?:[[:alnum:]_]+\\|[^[:alnum:]_ \t\r\n\f]*\\)"
                text)
  (match-end 0))

(defun dg-lsp-ghost-line (text)
  "Return the length of the first line of TEXT, with a line break before it."
  (string-match "\\`\n?[^\n]*" text)
  (match-end 0))

(provide 'dg-lsp-ghost)
;;; dg-lsp-ghost.el ends here
